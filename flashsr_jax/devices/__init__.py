"""Where arrays live and programs run: mesh and sharding rules, processes, caches and memory."""
