"""cinnabar_client"""
