"""Pictures of the saga and of the broker's objects, drawn from the saga table and from nothing else."""
