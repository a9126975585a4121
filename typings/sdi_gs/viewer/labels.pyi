from viewer.labels import *
