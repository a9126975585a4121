from viewer.steering import *
