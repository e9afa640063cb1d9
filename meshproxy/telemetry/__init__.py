"""What a proxy counts and how it is read: held series, the page, and the golden metrics computed from two pages."""
