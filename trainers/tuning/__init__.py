"""The search for a recipe's numbers, on classes that are neither trained nor tested on."""
