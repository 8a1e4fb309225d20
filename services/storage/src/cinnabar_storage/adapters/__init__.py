"""Where storage meets the outside: Postgres, and an in-memory stand-in for it."""
