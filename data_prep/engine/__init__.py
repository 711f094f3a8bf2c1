"""What prepares a source, whatever it is: copies and downloads, archives, rows, tables, and the manifest of it all."""
