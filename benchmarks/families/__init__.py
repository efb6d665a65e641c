"""How many model families can be drafted from transformers alone?"""
