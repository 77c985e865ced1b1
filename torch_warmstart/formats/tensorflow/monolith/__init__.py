"""Monolith's hash tables: records of TensorFlow's, each an id with its row and its slots.

Records are never parsed one by one: those of one length and one form are looked at together.
"""
