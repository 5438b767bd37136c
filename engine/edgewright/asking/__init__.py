"""What the user asks for, checked: the recipe, the target, and files of their own."""
