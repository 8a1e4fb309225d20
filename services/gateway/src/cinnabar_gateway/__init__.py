"""cinnabar_gateway"""
