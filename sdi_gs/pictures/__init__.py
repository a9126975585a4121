"""Images and films of a scene, and the camera rings they are rendered from."""
