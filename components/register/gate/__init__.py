"""May this model become champion?"""
