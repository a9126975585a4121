from viewer.splat_stream import *
