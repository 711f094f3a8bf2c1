"""One adapter a family around the installed library; none knows another."""
