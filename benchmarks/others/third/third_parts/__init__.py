"""Parts of the third unseen set: networks and data that several cases use. Holds no cases."""
