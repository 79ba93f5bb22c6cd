"""Doors for those who train elsewhere; nothing here is imported by `import sourcewise`."""
