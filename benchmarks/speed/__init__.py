"""Every speed that this project asks of itself, measured by one command."""
