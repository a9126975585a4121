from viewer.pictures import *
