"""Programs that show what the mesh does for ordinary applications.  They know nothing of meshproxy."""
