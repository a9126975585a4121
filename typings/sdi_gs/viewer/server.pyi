from viewer.server import *
