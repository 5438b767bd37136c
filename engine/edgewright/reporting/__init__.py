"""What is told of a deploy, and how it is written and read again."""
