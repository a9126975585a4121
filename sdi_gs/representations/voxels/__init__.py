"""A dense voxel grid of density and colour (Plenoxels), rendered as fields are."""
