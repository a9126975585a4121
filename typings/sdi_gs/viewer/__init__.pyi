from viewer import *
