"""The whole saga, seen at work: payments that go well, that are refused at every step, repeated and cut off."""
