"""Process plumbing shared by the services: errors, servers, config, names. No domain."""
