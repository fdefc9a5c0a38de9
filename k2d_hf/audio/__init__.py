"""The one reader of sound: any file that libsndfile reads, as 16 kHz mono float32."""
