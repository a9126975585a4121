from viewer.downloads import *
