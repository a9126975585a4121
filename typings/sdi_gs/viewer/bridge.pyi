from viewer.bridge import *
