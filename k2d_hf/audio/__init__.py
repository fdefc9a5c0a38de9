"""The one audio reader: any file that libsndfile reads, as 16 kHz mono float32."""
