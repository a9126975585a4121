from viewer.scene import *
