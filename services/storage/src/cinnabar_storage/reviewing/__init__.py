"""What people change and accept: overrides, histories, waiting reviews."""
