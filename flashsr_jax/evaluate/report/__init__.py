"""What an evaluation found, as a page to look at and listen to, tables and score files."""
