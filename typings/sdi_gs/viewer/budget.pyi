from viewer.budget import *
