scarprune profile demo --blocks 16 --length 256 --out demo.safetensors
scarprune plan demo.safetensors --score scar_prot --sparsity 0.3 --out plan.json
scarprune cut demo plan.json demo-cut
scarprune eval demo --plan plan.json --text demo --blocks 16 --length 256
