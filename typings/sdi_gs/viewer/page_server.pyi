from viewer.page_server import *
