from viewer.resolution import *
