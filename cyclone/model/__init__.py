"""The nouns: plain values with no behaviour beyond their own truth."""
