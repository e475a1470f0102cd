"""What every layer uses: mesh and sharding constraints, unit vectors, caches."""
