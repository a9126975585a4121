from viewer.page import *
