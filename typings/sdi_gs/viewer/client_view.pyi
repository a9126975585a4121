from viewer.client_view import *
