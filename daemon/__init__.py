"""The process around the domain: settings, the Pub/Sub stream, message handling, shutdown, commands."""
