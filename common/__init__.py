"""The parts the services are made of: no business word in here but the saga table and the messages."""
