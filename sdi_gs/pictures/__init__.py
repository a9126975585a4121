"""Images, films and the camera rings they are taken from."""
