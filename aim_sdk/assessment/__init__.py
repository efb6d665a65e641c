"""Do these demonstrations help? Every one is asked in turn after the others, in several settings."""
