from viewer.history import *
