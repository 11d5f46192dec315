"""What the history tells of each saga: read from the stream, folded into stories, told to people and programs."""
