"""Objects that lie beside the database."""
