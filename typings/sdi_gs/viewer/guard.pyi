from viewer.guard import *
