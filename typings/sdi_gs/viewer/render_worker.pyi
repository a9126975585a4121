from viewer.render_worker import *
