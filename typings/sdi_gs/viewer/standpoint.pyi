from viewer.standpoint import *
