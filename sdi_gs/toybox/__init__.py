"""A small world of known 3D objects with exact renders: the instrument that the method is measured on."""
